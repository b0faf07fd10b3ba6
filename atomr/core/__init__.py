"""Pure decisions of OTP: exit reasons, child specs, restart intensity, plans."""

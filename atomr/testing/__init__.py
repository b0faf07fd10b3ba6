"""Testing kit for users of atomr: probes, supervised fixtures, seeded schedules."""

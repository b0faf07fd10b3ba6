"""OTP behaviours: GenServer, Supervisor, DynamicSupervisor, Application."""

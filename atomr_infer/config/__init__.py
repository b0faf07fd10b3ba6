"""Configuration: TOML, environment and secrets to validated values."""

"""``python -m atomr_infer.cli``."""

from atomr_infer.cli.main import main

main()

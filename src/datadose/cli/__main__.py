"""`python -m datadose.cli`."""

from datadose.cli import main

raise SystemExit(main())

"""``python -m edgekit`` is the command `edgekit`."""

from edgekit.cli import main

raise SystemExit(main())

"""``python -m lrc_core.cli`` is ``lrc``."""

import sys

from lrc_core.cli import main

sys.exit(main())

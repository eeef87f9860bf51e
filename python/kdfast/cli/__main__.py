"""`python -m kdfast.cli`, for launchers that start modules: `torchrun -m kdfast.cli train CONFIG`."""

import sys

from kdfast.cli import main

if __name__ == "__main__":
    sys.exit(main())

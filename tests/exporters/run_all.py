"""The tests of this folder, or those of the modules that are named; 77 (skipped) where numpy is missing."""
import pathlib
import sys
import unittest

try:
    import numpy  # noqa: F401
except ImportError:
    print("exporters: numpy is missing: apt-get install python3-numpy")
    sys.exit(77)

here = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(here))
names = sys.argv[1:] or sorted(p.stem for p in here.glob("test_*.py"))
suite = unittest.defaultTestLoader.loadTestsFromNames(names)
sys.exit(0 if unittest.TextTestRunner(verbosity=1).run(suite).wasSuccessful() else 1)

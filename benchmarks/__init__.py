"""Benchmarks against other packages. Importing this replaces missing packages by stand-ins."""

from benchmarks.stand_ins import install

STAND_INS = install()  # names of the packages replaced

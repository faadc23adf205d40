"""Speed and memory, beside what people use now. Importing this puts stand-ins where packages are missing."""

from benchmarks.stand_ins import install

STAND_INS = install()  # names

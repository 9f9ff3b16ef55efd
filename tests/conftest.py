"""What holds for every test."""

import gc

import torch
from hypothesis import settings

# One thread a process: the suite runs in several, and sums come out the same in each.
torch.set_num_threads(1)

# Searches and traces stay for later tests; to look through all of them often takes a tenth of all.
gc.set_threshold(100_000, 20, 50)

settings.register_profile("hwcost", deadline=None)
settings.load_profile("hwcost")

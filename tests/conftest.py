"""What holds for every test."""

import torch
from hypothesis import settings

# One thread a process: the suite runs in several, and sums come out the same in each.
torch.set_num_threads(1)

settings.register_profile("hwcost", deadline=None)
settings.load_profile("hwcost")

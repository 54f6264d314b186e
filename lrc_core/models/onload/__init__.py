"""Models that are larger than the device, or than memory: their blocks are brought in one after the other."""

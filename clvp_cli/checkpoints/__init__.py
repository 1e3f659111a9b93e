"""Models on disk. One canonical state, the published layout; other formats are tables of names onto it.

load.py         open_checkpoint: which format a path is, told by its content
checkpoint.py   Checkpoint: configuration, parts, side models, tensors mapped when asked for
layout.py       every name and shape of the published layout      published.py   its files and shards
tortoise.py     Tortoise's files together                         tortoise_*.py  one table each, read by adapter.py
tensors.py      safetensors without torch                         pickles.py     .pth and .bin, never executed
modules.py      build_empty and load_module                       rounded.py        the decoder in 8 bits
writer.py, save.py, random.py, info.py
"""

"""The published API: every class of transformers' CLVP documentation under its own name, arguments and outputs.

Each model class is a lean module of the model room with the published forward, loading and saving added; nothing is
computed twice. Import the names from `clvp_cli` itself, which loads them when they are first used.
"""

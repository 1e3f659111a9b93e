"""Reading and writing: streams ("-", atomic writes, broken pipes), JSONL, arrays without pickle, candidate files.

Owns bytes on their way in and out, and the sentences for files that cannot be used. Must not know of models, audio
or the command line, and never loads torch.
"""

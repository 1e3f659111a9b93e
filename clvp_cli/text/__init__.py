"""Text in, ids out: normalisers, the tokenizer and its 255-entry vocabulary, a sentence splitter.

Knows nothing of audio, tensors or models. Importing it loads neither torch nor tokenizers.
"""

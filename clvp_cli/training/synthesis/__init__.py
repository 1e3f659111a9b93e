"""Makes the speech that the embedded model is trained on: `python -m clvp_cli.training.synthesis -c YAML --out DIR`.

sentences.py finds what to say, one file an engine says it, corpus.py decides who says what and keeps the manifest.
The engines' packages are optional, are imported when an engine is built, and never are dependencies of clvp; the
package runs in an environment of its own (configs/mini/requirements-data.txt). Nothing else imports it.
"""

"""What a model is worth: perplexity, zero-shot accuracy, a text sample, size and speed.

Import ``zero_shot`` only where it is used: it brings lm-eval, which takes seconds to import.
"""

from lrc_core.front import callable_package

callable_package(__name__)

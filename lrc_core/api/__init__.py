"""The Python interface, one file per name: ``import lrc_core as lrc``, then ``lrc.load(...)`` and so on.

What computes is a run, the same as in the app and on the command line: it has an id and a folder, the same question
joins the same run, and what is finished is read and not computed again. Names of methods, decompositions and settings
are those of ``lrc methods``. Every error is an :class:`~lrc_core.errors.LrcError` that names the thing and the remedy.
"""

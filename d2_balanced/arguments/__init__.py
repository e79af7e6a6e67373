"""The options of each command and their help, without anything that does the work.

So ``d2_balanced COMMAND --help``, and what is wrong with an option, are told before torch is imported: ``__main__.py``
looks here for a module of the command's name. A command's ``main`` takes its ``argument_parser`` from here. What
imports torch itself only after it has read its words (``train``, ``tune``) need not be here.
"""

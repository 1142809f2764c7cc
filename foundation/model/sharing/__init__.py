"""What part of an encoder a task may change: a method marks what is trained and puts small modules around what is not.

config: the methods and their settings. apply: settings -> encoder. lora, adapter, prefix, frozen: the modules that some need.
"""

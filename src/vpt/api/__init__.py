"""One call for each thing that people do with `vpt`: tune, predict, evaluate, explain, embed.

The commands of the same names call these functions. `import vpt` offers them as `vpt.tune` and so on. Each module is
imported when it is used: a prediction needs nothing of a search.
"""

"""The methods: one file each, listed in the registry."""

from vpt.methods.registry import *  # noqa: F403 (it lists what it exports)

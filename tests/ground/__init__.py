"""The ground that tests stand on: images, roots with a real init, registries. No test is in here.

What makes images uses the standard library only, so that `./dev demo` can run it before anything is installed.
"""

"""The doctor: what a host lacks for root's services or a user's, each with what mends it.

`probing` and its helpers look (effects), `findings` and its parts judge (pure), `mending` does what a remedy says.
"""

"""Training networks on real and dialled tasks, to see what receptive field a task needs.

Begin with the room `data`.
"""

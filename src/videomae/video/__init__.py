"""Video files in and out: container facts, frame arithmetic, frame-exact reading, writing.

`sampling` is arithmetic alone; `probe`, `decode` and `write` are the only files that touch the codec library, with
`stream` and `index` beneath them. Nothing here knows of models, tensors or data sets; frames are NumPy arrays.
"""

"""Video files in and out: container facts, frame arithmetic, frame-exact reading, writing.

`decode` reads frames by index. Beneath it: `encoded`, the bytes; `stream`, packets and frames in order; `rgb`, their
colors; `packets`, `index` and `indexed`, which frame is where; `direct`, frames without their container; `kept` and
`index_store`, what is known of a video on disk. `torchcodec_reader` reads in place of `decode` where one of the names
in `decoders` says so. `opening` opens whatever counts as a video, `sampling` is arithmetic alone. Nothing here knows
of models, tensors or data sets; frames are NumPy arrays.
"""

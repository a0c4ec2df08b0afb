from retina_ops.reference.postprocess import postprocess  # SHIM

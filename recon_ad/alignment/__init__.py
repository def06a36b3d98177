"""Alignment of a part to its template (the registration of Buzzega et al.), without JAX.

Belongs here: similarity transforms, the search for the part, the template and its background. Does
not belong here: residual maps, scores, or anything that knows a method.
"""

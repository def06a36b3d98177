"""Alignment of a part to its template (the registration of Buzzega et al.), without JAX.

Similarity transforms, the search for the part, the template and its background belong here.
Residual maps, scores, and anything that knows a method do not.
"""

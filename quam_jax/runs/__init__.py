"""A run in its parts: what is asked (request), what cases share (method), one case (cases), three steps side by side (stages),
several processes in one folder (workers), and the end of it all (merge). `pipeline.run` puts them together.
"""

"""Modules of earlier versions, importable as `paramdesc.<name>`, for pickles that name them.

`paramdesc/__init__.py` adds this folder to the places where its submodules are looked for.
Nothing here is imported before such a pickle is loaded, and nothing else imports it.
"""

"""The demo, `python -m paramdesc`: one recurrent network on real data, under both engines.

`import paramdesc` never imports it, and it needs the extra `paramdesc[demo]`.
"""

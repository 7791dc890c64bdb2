"""The demo, `python -m paramdesc`: one recurrent network on real data, constrained in four ways.

`import paramdesc` never imports it, and it needs the extra `paramdesc[demo]`.
"""

"""The program behind `python -m paramdesc`: the demo, and commands for checkpoint files.

`import paramdesc` never imports it.
"""

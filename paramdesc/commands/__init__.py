"""The program behind `python -m paramdesc`. `import paramdesc` never imports it."""

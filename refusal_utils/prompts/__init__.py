"""The eleven categories, the prompt files, the public data sets, and draws of prompts."""

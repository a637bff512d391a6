"""The pages that people see, in Debian's Chromium, against a controller that serves."""

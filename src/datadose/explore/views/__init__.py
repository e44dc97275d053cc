"""The explorer's views, one file each: a layout, and callbacks that answer it."""

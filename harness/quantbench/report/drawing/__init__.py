"""Drawing: the figures of the pages, on axes and as SVG."""

"""A process that draws: a description in Vega-Lite comes in on each line, its picture or an error goes out on one.

It is run as a file, and imports nothing of fedunlearn, so that it starts in a fraction of a second.
"""

import json
import signal
import sys

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started it ends it
    for chart in sys.stdin:
        try:
            import vl_convert  # here, so that it is told of where this fails

            answer = {"svg": vl_convert.vegalite_to_svg(chart, show_warnings=False)}
        except BaseException as error:  # a panic of the library is no Exception
            answer = {"error": str(error) or type(error).__name__}
        print(json.dumps(answer), flush=True)

"""The way in of requests: when they come, what becomes of them at the desk, and when they are honoured.

Pure: dates, texts and tables in, the same out. A *calendar* (`calendar`) gives rounds dates. Requests come one by
one, written or drawn (`arrivals`). The *desk* (`desk`) meets whenever a round is over, and accepts, refuses or holds
back what came in since, each with a reason. A *policy* (`policies`) says when what was accepted is unlearned. What can
become of a request, and what not, is a small machine (`states`).
"""

"""
The only async flow: groups in, outcomes durable, parts published.

`feed` reads groups, `dispatcher` decides what leaves and when, `caller` makes one attempt and
judges it, `committer` makes results durable and frees their slots, `publisher` turns finished
ranges into parts, `runner` starts and ends it all. Each decision is a pure function of `policy`.

Three rules hold everywhere here. A slot belongs to one attempt until its record is durable. What
stops the job is a value (`Stop`), so that paid calls come home. No cancel scope lies around a paid
call, but for the one that ends the process when the time to drain is over.
"""

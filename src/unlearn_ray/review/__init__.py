"""People in the loop: three labelling projects in which people correct the dictionary, the labels and the judge.

Tasks go out (tasks, anchors, labels, judge), answers come in (answers, terms, voting, decisions), and what was decided
is applied (corrections, scores); store is what lies in the run, server and serve are Label Studio. Free of Ray; files
need neither Label Studio nor its SDK.
"""

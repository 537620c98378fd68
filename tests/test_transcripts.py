"""Each path through the protocol, as it is spoken: who asks what and what is answered; ``stage`` explains the signs."""

from cachecraft._core.effects import Sleep
from cachecraft.backends.commands import PLANS
from tests.simulation.jobs import LoaderError, drop, peek, put, read, renew, sweep, untag, write
from tests.simulation.network import Cancelled
from tests.simulation.stage import Stage

# -- reading ----------------------------------------------------------------------------------------------------------


def test_a_miss_is_three_round_trips_and_a_hit_is_one() -> None:
    stage = Stage([read("a")], [read("a")])
    stage.run("A")
    stage.says("""
        A MGET f:a ~root ~fn:f ~tag:all                  - - - -
        A SET ~root #1 NX                                OK
        A SET ~fn:f #2 NX                                OK
        A SET ~tag:all #3 NX                             OK
        A SWAP f:a: - -> L#4(#1 #2 #3)                   done
        A PTTL f:a                                       5 s
        A MGET f:a ~root ~fn:f ~tag:all                  L#4(#1 #2 #3) #1 #2 #3
        A LOAD
        A SWAP f:a: L#4 -> V#4(#1 #2 #3)                 done
    """)
    stage.run("B")
    stage.says("""
        B MGET f:a ~root ~fn:f ~tag:all                  V#4(#1 #2 #3) #1 #2 #3
    """)


def test_who_loses_the_lease_waits_for_the_entry() -> None:
    stage = Stage([read("a")], [read("a")], threads=(1, 1))
    stage.run("B", until="SET")
    stage.run("A", until="load")
    stage.said()
    stage.run("B", until="nap")
    stage.says("""
        B SET ~root #5 NX                                -
        B SET ~fn:f #6 NX                                -
        B SET ~tag:all #7 NX                             -
        B SWAP f:a: - -> L#8(#5 #6 #7)                   refused
        B PTTL f:a                                       5 s
        B MGET f:a ~root ~fn:f ~tag:all                  L#4(#1 #2 #3) #1 #2 #3
        B SLEEP
    """)
    stage.run("A")
    stage.run("B")
    stage.says("""
        A SWAP f:a: L#4 -> V#4(#1 #2 #3)                 done
        B MGET f:a ~root ~fn:f ~tag:all                  V#4(#1 #2 #3) #1 #2 #3
    """)


def test_a_load_of_the_same_process_is_joined_once_it_was_seen_in_redis() -> None:
    stage = Stage([read("a")], [read("a")])
    stage.run("A", until="load")
    stage.said()
    stage.run("B", until="join")
    stage.run("A")
    stage.run("B")
    stage.says("""
        B MGET f:a ~root ~fn:f ~tag:all                  L#4(#1 #2 #3) #1 #2 #3
        B JOIN #4
        A SWAP f:a: L#4 -> V#4(#1 #2 #3)                 done
    """)


def test_a_load_that_began_after_the_caller_came_is_joined_without_another_word() -> None:
    stage = Stage([read("a")], [read("a")])
    stage.run("B", until="MGET", at_once=True)
    stage.run("A", until="SET")
    stage.said()
    stage.run("B", until="join")
    stage.run("A", until="load")
    stage.says("""
        B MGET f:a ~root ~fn:f ~tag:all                  - - - -
        B JOIN #1
        A SET ~root #2 NX                                OK
        A SET ~fn:f #3 NX                                OK
        A SET ~tag:all #4 NX                             OK
        A SWAP f:a: - -> L#1(#2 #3 #4)                   done
        A PTTL f:a                                       5 s
        A MGET f:a ~root ~fn:f ~tag:all                  L#1(#2 #3 #4) #2 #3 #4
        A LOAD
    """)


def test_of_all_who_wait_for_a_load_elsewhere_one_asks_and_tells_the_others() -> None:
    stage = Stage([read("a")], [read("a")], [read("a")], threads=(1, 2))
    stage.run("A", until="load")
    stage.said()
    stage.run("B", until="nap")
    stage.run("C", until="join")
    stage.run("A")
    stage.run("B")
    stage.run("C")
    stage.says("""
        B MGET f:a ~root ~fn:f ~tag:all                  L#4(#1 #2 #3) #1 #2 #3
        B SLEEP
        C MGET f:a ~root ~fn:f ~tag:all                  L#4(#1 #2 #3) #1 #2 #3
        C JOIN #4
        A SWAP f:a: L#4 -> V#4(#1 #2 #3)                 done
        B MGET f:a ~root ~fn:f ~tag:all                  V#4(#1 #2 #3) #1 #2 #3
    """)


def test_who_waits_for_a_load_elsewhere_asks_soon_at_first_and_then_less_than_twenty_times_a_second() -> None:
    stage = Stage([read("a")], [read("a")], threads=(1, 1))
    stage.run("A", until="load")
    world, flow = stage.world, stage.world.processes[1].place.recall(("a",), lambda: None)
    asked: list[float] = []
    began, effect = world.now, next(flow)
    while world.now < began + 1.9:
        if isinstance(effect, Sleep):
            world.now += effect.seconds
            effect = flow.send(None)
        else:
            asked.append(world.now - began)
            plan = PLANS[type(effect)]
            effect = flow.send(plan.answer(effect, [world.redis.execute(each) for each in plan.commands(effect)]))
    flow.close()
    assert sum(at < 0.06 for at in asked) > 10
    assert len(asked) < 60
    assert sum(at > 0.9 for at in asked) < 20


# -- invalidating -----------------------------------------------------------------------------------------------------


def test_an_entry_whose_tag_fell_is_a_miss() -> None:
    stage = Stage([read("a")], [untag], [read("a")])
    stage.run("A")
    stage.said()
    stage.run("B")
    stage.run("C")
    stage.says("""
        B UNLINK ~any ~tag:all                           1
        C MGET f:a ~root ~fn:f ~tag:all                  V#4(#1 #2 #3) #1 #2 -
        C PROLONG ~root                                  long enough
        C PROLONG ~fn:f                                  long enough
        C SET ~tag:all #5 NX                             OK
        C SWAP f:a: V#4 -> L#6(#1 #2 #5)                 done
        C PTTL f:a                                       5 s
        C MGET f:a ~root ~fn:f ~tag:all                  L#6(#1 #2 #5) #1 #2 #5
        C LOAD
        C SWAP f:a: L#6 -> V#6(#1 #2 #5)                 done
    """)


def test_a_load_that_was_invalidated_stores_nothing() -> None:
    stage = Stage([read("a")], [drop("a")])
    stage.run("A", until="load")
    stage.said()
    stage.run("B")
    stage.run("A")
    stage.says("""
        B UNLINK f:a                                     1
        A SWAP f:a: L#4 -> V#4(#1 #2 #3)                 refused
    """)


def test_who_comes_after_an_invalidation_does_not_join_the_load_before_it() -> None:
    stage = Stage([read("a")], [untag], [read("a")])
    stage.run("A", until="load")
    stage.run("B")
    stage.said()
    stage.run("C")
    stage.run("A")
    stage.says("""
        C MGET f:a ~root ~fn:f ~tag:all                  L#4(#1 #2 #3) #1 #2 -
        C PROLONG ~root                                  long enough
        C PROLONG ~fn:f                                  long enough
        C SET ~tag:all #5 NX                             OK
        C SWAP f:a: L#4 -> L#6(#1 #2 #5)                 done
        C PTTL f:a                                       5 s
        C MGET f:a ~root ~fn:f ~tag:all                  L#6(#1 #2 #5) #1 #2 #5
        C LOAD
        C SWAP f:a: L#6 -> V#6(#1 #2 #5)                 done
        A SWAP f:a: L#4 -> V#4(#1 #2 #3)                 refused
    """)


def test_a_sweep_meets_loads_under_way() -> None:
    stage = Stage([read("a")], [sweep])
    stage.run("A", until="load")
    stage.said()
    stage.run("B")
    stage.run("A")
    stage.says("""
        B SCAN f:*                                       -
        B SCAN f:*                                       f:a
        B UNLINK f:a                                     1
        B SCAN f:*                                       -
        B SCAN f:*                                       -
        A SWAP f:a: L#4 -> V#4(#1 #2 #3)                 refused
    """)


# -- loaders that fail ------------------------------------------------------------------------------------------------


def test_a_loader_that_raises_gives_its_lease_back() -> None:
    stage = Stage([read("a")])
    stage.run("A", until="load")
    stage.said()
    stage["A"].go_on(LoaderError)
    stage.run("A")
    stage.says("""
        A DROP f:a: L#4                                  done
    """)


def test_a_caller_that_is_cancelled_gives_its_lease_back_and_who_joined_it_starts_over() -> None:
    stage = Stage([read("a")], [read("a")])
    stage.run("A", until="load")
    stage.run("B", until="join")
    stage.said()
    stage["A"].throw(Cancelled(stage["A"]))
    stage.run("B", until="nap")
    stage.run("A")
    stage.run("B")
    stage.says("""
        B MGET f:a ~root ~fn:f ~tag:all                  L#4(#1 #2 #3) #1 #2 #3
        B SLEEP
        A DROP f:a: L#4                                  done
        B MGET f:a ~root ~fn:f ~tag:all                  - #1 #2 #3
        B PROLONG ~root                                  long enough
        B PROLONG ~fn:f                                  long enough
        B PROLONG ~tag:all                               long enough
        B SWAP f:a: - -> L#5(#1 #2 #3)                   done
        B PTTL f:a                                       5 s
        B MGET f:a ~root ~fn:f ~tag:all                  L#5(#1 #2 #3) #1 #2 #3
        B LOAD
        B SWAP f:a: L#5 -> V#5(#1 #2 #3)                 done
    """)


def test_a_caller_that_is_cancelled_while_it_acquires_gives_back_what_it_may_have_won() -> None:
    stage = Stage([read("a")])
    stage.run("A", until="EVALSHA")
    stage.said()
    stage["A"].throw(Cancelled(stage["A"]))
    stage.run("A")
    stage.says("""
        A SWAP f:a: - -> L#4(#1 #2 #3)                   done
        A PTTL f:a                                       5 s
        A MGET f:a ~root ~fn:f ~tag:all                  L#4(#1 #2 #3) #1 #2 #3
        A DROP f:a: L#4                                  done
    """)


# -- refreshing -------------------------------------------------------------------------------------------------------


def test_an_old_entry_is_served_and_loaded_anew_behind() -> None:
    stage = Stage([read("a")], [read("a")], flavour="stale")
    stage.run("A")
    stage.age("a", 40)
    stage.said()
    stage.run("B")
    stage.says("""
        B PTTL f:a                                       40 s
        B MGET f:a ~root ~fn:f ~tag:all                  V#4(#1 #2 #3) #1 #2 #3
        B SPAWN
    """)
    stage.run("C")
    stage.says("""
        C SET f:a~r L#5 NX                               OK
        C PTTL f:a                                       40 s
        C MGET f:a ~root ~fn:f ~tag:all                  V#4(#1 #2 #3) #1 #2 #3
        C LOAD
        C SWAP f:a: V#4 -> V#6(#1 #2 #3)                 done
        C DROP f:a~r: L#5                                done
    """)


def test_with_grace_the_caller_waits_for_the_load_behind() -> None:
    stage = Stage([read("a")], [read("a")], flavour="grace")
    stage.run("A")
    stage.age("a", 40)
    stage.said()
    stage.run("B", until="join")
    stage.run("C")
    stage.run("B")
    stage.says("""
        B PTTL f:a                                       40 s
        B MGET f:a ~root ~fn:f ~tag:all                  V#4(#1 #2 #3) #1 #2 #3
        B SPAWN
        B JOIN V#4
        C SET f:a~r L#5 NX                               OK
        C PTTL f:a                                       40 s
        C MGET f:a ~root ~fn:f ~tag:all                  V#4(#1 #2 #3) #1 #2 #3
        C LOAD
        C SWAP f:a: V#4 -> V#6(#1 #2 #3)                 done
        C DROP f:a~r: L#5                                done
    """)


def test_a_refresh_of_what_was_invalidated_meanwhile_stores_nothing() -> None:
    stage = Stage([read("a")], [read("a"), drop("a")], flavour="stale")
    stage.run("A")
    stage.age("a", 40)
    stage.said()
    stage.run("B", until="start")
    stage.run("C", until="load")
    stage.said()
    stage.run("B")
    stage.run("C")
    stage.says("""
        B UNLINK f:a                                     1
        C SWAP f:a: V#4 -> V#6(#1 #2 #3)                 refused
        C DROP f:a~r: L#5                                done
    """)


def test_a_load_that_is_forced_leaves_the_entry_until_the_new_one_is_there() -> None:
    stage = Stage([read("a")], [renew("a")])
    stage.run("A")
    stage.said()
    stage.run("B")
    stage.says("""
        B MGET f:a ~root ~fn:f ~tag:all                  V#4(#1 #2 #3) #1 #2 #3
        B LOAD
        B SWAP f:a: V#4 -> V#5(#1 #2 #3)                 done
    """)


# -- writing ----------------------------------------------------------------------------------------------------------


def test_a_write_holds_the_key_until_its_result_is_stored() -> None:
    stage = Stage([write("a")])
    stage.run("A")
    stage.says("""
        A MGET f:a ~root ~fn:f ~tag:all                  - - - -
        A SET ~root #1 NX                                OK
        A SET ~fn:f #2 NX                                OK
        A SET ~tag:all #3 NX                             OK
        A SWAP f:a: - -> L#4(#1 #2 #3)                   done
        A PTTL f:a                                       5 s
        A MGET f:a ~root ~fn:f ~tag:all                  L#4(#1 #2 #3) #1 #2 #3
        A LOAD
        A SWAP f:a: L#4 -> V#4(#1 #2 #3)                 done
    """)


def test_a_write_that_raises_drops_the_entry() -> None:
    stage = Stage([write("a")])
    stage.run("A", until="load")
    stage.world.step(stage["A"])
    stage.said()
    stage["A"].go_on(LoaderError)
    stage.run("A")
    stage.says("""
        A UNLINK f:a                                     1
    """)


def test_a_value_that_is_brought_is_fenced_like_a_load() -> None:
    stage = Stage([put("a")], [peek("a")])
    stage.run("A")
    stage.run("B")
    stage.says("""
        A MGET f:a ~root ~fn:f ~tag:all                  - - - -
        A SET ~root #1 NX                                OK
        A SET ~fn:f #2 NX                                OK
        A SET ~tag:all #3 NX                             OK
        A SWAP f:a: - -> L#4(#1 #2 #3)                   done
        A PTTL f:a                                       5 s
        A MGET f:a ~root ~fn:f ~tag:all                  L#4(#1 #2 #3) #1 #2 #3
        A SWAP f:a: L#4 -> V#4(#1 #2 #3)                 done
        B MGET f:a ~root ~fn:f ~tag:all                  V#4(#1 #2 #3) #1 #2 #3
    """)


# -- tags that follow from the result ---------------------------------------------------------------------------------


def test_tags_of_the_result_are_trusted_if_no_tag_fell_meanwhile() -> None:
    stage = Stage([read("a")], [read("a")], flavour="result")
    stage.run("A")
    stage.says("""
        A MGET f:a ~root ~fn:f ~any                      - - - -
        A SET ~root #1 NX                                OK
        A SET ~fn:f #2 NX                                OK
        A SET ~any #3 NX                                 OK
        A SWAP f:a: - -> L#4(#1 #2 #3)                   done
        A PTTL f:a                                       5 s
        A MGET f:a ~root ~fn:f ~any                      L#4(#1 #2 #3) #1 #2 #3
        A LOAD
        A SET ~tag:all #5 NX                             OK
        A SET ~any #6 NX                                 -
        A MGET ~tag:all ~any                             #5 #3
        A SWAP f:a: L#4 -> V#4(#1 #2 #5)                 done
    """)
    stage.run("B")
    stage.says("""
        B MGET f:a ~root ~fn:f ~any                      V#4(#1 #2 #5) #1 #2 #3
        B MGET f:a ~root ~fn:f ~any ~tag:all             V#4(#1 #2 #5) #1 #2 #3 #5
    """)


def test_when_a_tag_falls_while_its_entry_is_loaded_nothing_is_stored() -> None:
    stage = Stage([read("a")], [untag], flavour="result")
    stage.run("A", until="load")
    stage.said()
    stage.run("B")
    stage.run("A")
    stage.says("""
        B UNLINK ~any ~tag:all                           1
        A SET ~tag:all #5 NX                             OK
        A SET ~any #6 NX                                 OK
        A MGET ~tag:all ~any                             #5 #6
        A DROP f:a: L#4                                  done
    """)


def test_who_loses_the_lease_to_an_entry_reads_its_tags_too() -> None:
    stage = Stage([read("a")], [read("a")], flavour="result")
    stage.run("B", until="SET")
    stage.run("A")
    stage.said()
    stage.run("B")
    stage.says("""
        B SET ~root #7 NX                                -
        B SET ~fn:f #8 NX                                -
        B SET ~any #9 NX                                 -
        B SWAP f:a: - -> L#10(#7 #8 #9)                  refused
        B PTTL f:a                                       100 s
        B MGET f:a ~root ~fn:f ~any                      V#4(#1 #2 #5) #1 #2 #3
        B MGET f:a ~root ~fn:f ~any                      V#4(#1 #2 #5) #1 #2 #3
        B MGET f:a ~root ~fn:f ~any ~tag:all             V#4(#1 #2 #5) #1 #2 #3 #5
    """)


# -- connections ------------------------------------------------------------------------------------------------------


def test_a_new_connection_to_a_server_that_restarted_lets_the_root_stamp_fall() -> None:
    stage = Stage([read("a")], [peek("a")], threads=(1, 1))
    stage.run("A")
    stage.world.redis.restart(stage.world.redis.snapshot())
    stage.said()
    stage.run("B")
    stage.says("""
        B INFO server                                    run-2
        B MGET ~root                                     #1
        B MGET ~runid                                    run-1
        B DROP ~root: #1                                 which script?
        B DROP ~root: #1                                 done
        B SET ~runid run-2                               OK
        B MGET f:a ~root ~fn:f ~tag:all                  V#4(#1 #2 #3) - #2 #3
    """)


def test_another_connection_finds_the_server_as_it_was_left() -> None:
    stage = Stage([read("a")], [peek("a")])
    stage.run("A")
    stage.world.processes[0].idle.clear()
    stage.said()
    stage.run("B")
    stage.says("""
        B INFO server                                    run-1
        B MGET ~root                                     #1
        B MGET ~runid                                    run-1
        B MGET f:a ~root ~fn:f ~tag:all                  V#4(#1 #2 #3) #1 #2 #3
    """)

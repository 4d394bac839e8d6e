package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"presenced/aggregator"
	"presenced/aggregator/directory"
	"presenced/aggregator/presence"
)

// The load is a town. Each inhabitant has a phone, a calendar and automatic
// replies, and thus three reports; many have a meeting that begins at the same moment.
const (
	inhabitants = 1_000_000
	invited     = 300_000
	readers     = 4 // watchers of everybody, who read what comes; one more stops reading
)

// load fills a hub with the town, has the meeting begin, and prints what that
// takes, in the form in which go test prints a benchmark. It is to be a process of
// its own: memory is that of the whole process, resident after a collection.
func load(ctx context.Context, out io.Writer) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var people []presence.Person
	for i := range inhabitants {
		people = append(people, inhabitant(i))
	}
	d, problems := directory.New(people)
	if problems != nil {
		return errors.New(problems[0])
	}
	people = nil //nolint:ineffassign,wastedassign // the directory has its own; this one is to be collected
	list, err := resident()
	if err != nil {
		return err
	}
	h := aggregator.NewHub(presence.DefaultPolicy(), nil, slog.New(slog.DiscardHandler))
	h.SetDirectory(d, time.Now())
	at := time.Now().Truncate(time.Second)
	for i := range inhabitants {
		for _, r := range []presence.Report{phone(i, at), calendar(i, at, at.Add(time.Hour)), replies(i, at)} {
			if err := h.Report(ctx, r); err != nil {
				return err
			}
		}
	}
	go h.Run(ctx) //nolint:errcheck // it ends with the process

	var ready sync.WaitGroup
	var done, slow errgroup.Group
	var held time.Duration // from the beginning of the meeting until the new states were in the mailboxes
	ready.Add(readers + 1)
	for range readers {
		done.Go(func() error { return follow(ctx, h, ready.Done) })
	}
	resume := make(chan struct{})
	slow.Go(func() error {
		return follow(ctx, h, func() {
			ready.Done()
			<-resume
		})
	})
	ready.Wait()
	begin := time.Now().Add(10 * time.Second).Truncate(time.Second) // which is long enough to get everything ready before
	for i := range invited {
		if err := h.Report(ctx, calendar(i, at.Add(time.Second), begin)); err != nil {
			return err
		}
	}
	before, err := resident()
	if err != nil {
		return err
	}
	if time.Now().After(begin) {
		return errors.New("the meeting began before everything was ready")
	}
	time.Sleep(time.Until(begin))
	done.Go(func() error {
		for i := 0; i < invited; i += 97 { // some thousands: who asks for everybody is one more watcher
			wait(h, i)
		}
		held = time.Since(begin)
		return nil
	})
	most, err := peak(before, &done)
	if err != nil {
		return err
	}
	took := time.Since(begin)
	close(resume)
	if err := slow.Wait(); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "BenchmarkLoad 1 %.1f B/person %.1f B/person/directory %.3f held-s %.3f read-s %.2f growth-%%\n",
		float64(before)/inhabitants, float64(list)/inhabitants, held.Seconds(), took.Seconds(), 100*float64(most-before)/float64(before))
	return err
}

// follow watches everybody, calls caughtUp once it has seen each inhabitant, and ends
// when it has the state of each who is invited to the meeting.
func follow(ctx context.Context, h *aggregator.Hub, caughtUp func()) error {
	seen, met := 0, 0
	for s := range h.Watch(ctx) {
		if seen++; seen == inhabitants {
			caughtUp()
		}
		if s.Activity == presence.ActivityMeeting {
			if met++; met == invited {
				return nil
			}
		}
	}
	return fmt.Errorf("a watcher got %d of %d new states", met, invited)
}

// wait waits until an inhabitant is in the meeting. The hub leaves a state in the
// mailboxes in the same step in which it becomes the state.
func wait(h *aggregator.Hub, i int) {
	for {
		if s, _ := h.State(inhabitantID(i)); s.Activity == presence.ActivityMeeting {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// peak gives the most memory that is resident until done, at least most.
func peak(most int64, done *errgroup.Group) (int64, error) {
	over := make(chan error, 1)
	go func() { over <- done.Wait() }()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		pages, err := statm()
		if err != nil {
			return 0, err
		}
		most = max(most, pages)
		select {
		case <-tick.C:
		case err := <-over:
			return most, err
		}
	}
}

// resident gives what the process needs: its resident memory after a collection.
func resident() (int64, error) {
	runtime.GC() // twice, for what the first one only marks as free
	debug.FreeOSMemory()
	return statm()
}

// statm reads the resident memory of this process, in bytes.
func statm() (int64, error) {
	data, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, err
	}
	fields := bytes.Fields(data)
	if len(fields) < 2 {
		return 0, errors.New("/proc/self/statm cannot be read")
	}
	pages, err := strconv.ParseInt(string(fields[1]), 10, 64)
	return pages * int64(os.Getpagesize()), err
}

func inhabitant(i int) presence.Person {
	return presence.Person{
		ID: inhabitantID(i), Name: fmt.Sprintf("Inhabitant %07d", i),
		Subjects: []presence.Subject{extension(i), mail(i), {Scheme: "sip", Value: fmt.Sprintf("u%07d@example.com", i)}},
	}
}

func inhabitantID(i int) presence.ID { return presence.ID(fmt.Sprintf("u%07d", i)) }

func extension(i int) presence.Subject {
	return presence.Subject{Scheme: "tel", Value: fmt.Sprint(2_000_000 + i)}
}

func mail(i int) presence.Subject {
	return presence.Subject{Scheme: "mail", Value: fmt.Sprintf("inhabitant.%07d@example.com", i)}
}

// phone is an idle phone after a call.
func phone(i int, at time.Time) presence.Report {
	contact := extension(i).String()
	return presence.Report{Source: "aes/hq", Subject: extension(i), At: at, Grace: 30 * time.Second, Spans: []presence.Span{
		{Fact: presence.PhoneConnected, From: at.Add(-9 * time.Minute), Until: at.Add(-3 * time.Minute), Contact: contact},
		{Fact: presence.PhoneIdle, From: at.Add(-3 * time.Minute), Contact: contact},
	}}
}

// calendar is a calendar with a meeting, an appointment and the night.
func calendar(i int, at, meeting time.Time) presence.Report {
	return presence.Report{Source: "exchange/calendar", Subject: mail(i), At: at, Doubted: at.Add(time.Hour), Expires: at.Add(24 * time.Hour), Grace: 24 * time.Hour, Spans: []presence.Span{
		{Fact: presence.CalendarMeeting, From: meeting, Until: meeting.Add(time.Hour)},
		{Fact: presence.CalendarBusy, From: meeting.Add(2 * time.Hour), Until: meeting.Add(3 * time.Hour), Private: true},
		{Fact: presence.OffHours, From: meeting.Add(8 * time.Hour), Until: meeting.Add(22 * time.Hour)},
	}}
}

// replies are automatic replies that are yet to begin.
func replies(i int, at time.Time) presence.Report {
	return presence.Report{Source: "exchange/replies", Subject: mail(i), At: at, Doubted: at.Add(time.Hour), Expires: at.Add(24 * time.Hour), Grace: 24 * time.Hour, Spans: []presence.Span{
		{Fact: presence.AutoReply, From: at.Add(7 * 24 * time.Hour), Until: at.Add(21 * 24 * time.Hour)},
	}}
}

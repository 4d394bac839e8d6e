package services

import "context"

// Watched tells what others write to the store; a bucket of it is one.
type Watched interface {
	// Watch calls f with all that is there, then an empty key, then every change,
	// until ctx ends; a nil value was deleted. All may come again.
	Watch(ctx context.Context, f func(key string, value []byte, revision uint64))
}

// Hear takes what other machines change, until ctx ends.
func (c *Catalog) Hear(ctx context.Context, stored Watched) error {
	for range c.Watch(ctx) { // what was there before is read
		break
	}
	stored.Watch(ctx, func(id string, value []byte, revision uint64) {
		if id == "" || c.take(ctx) != nil {
			return
		}
		defer c.give()
		c.adopt(ctx, id, value, revision)
	})
	return nil
}

// adopt makes what the store holds of one service what counts here; the turn is held.
func (c *Catalog) adopt(ctx context.Context, id string, value []byte, revision uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	held, there := c.stored[id]
	if revision <= held.Revision || !there && value == nil && c.unread[id] == nil {
		return
	}
	delete(c.stored, id)
	delete(c.unread, id)
	if value != nil {
		r, wrong := c.read(id, value, revision)
		if wrong == nil {
			c.stored[id] = r
		} else {
			c.unread[id] = wrong
			c.terms.Log.ErrorContext(ctx, "a presence service of another machine cannot be used and is left aside", "service", id, "error", wrong)
		}
	}
	c.announce()
}

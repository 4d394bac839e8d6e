// Keeps what a page shows current. Every page is complete without this module:
// it puts in newer rows as the server sends them, and writes times in the zone
// of the viewer.

const lang = 'en-GB';
const clock = new Intl.DateTimeFormat(lang, { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' });
const exactClock = new Intl.DateTimeFormat(lang, { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' });
const weekday = new Intl.DateTimeFormat(lang, { weekday: 'short' });
const dayMonth = new Intl.DateTimeFormat(lang, { day: 'numeric', month: 'short' });
const dayMonthYear = new Intl.DateTimeFormat(lang, { day: 'numeric', month: 'short', year: 'numeric' });

const byId = (id) => document.getElementById(id);
const main = byId('main');

// ---- times: the same rules as in words.go

const dayNumber = (t) => Date.UTC(t.getFullYear(), t.getMonth(), t.getDate()) / 86400000;

function momentText(t, now, exact) {
  const days = dayNumber(t) - dayNumber(now);
  const time = exact ? exactClock.format(t) : clock.format(t);
  if (days === 0) return time;
  if (Math.abs(days) <= 6) return `${weekday.format(t)} ${time}`;
  const day = t.getFullYear() === now.getFullYear() ? dayMonth.format(t) : dayMonthYear.format(t);
  return exact ? `${day} ${time}` : day;
}

function ageText(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h`;
  return `${Math.floor(s / 86400)} d`;
}

function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function writeTimes(root) {
  const now = new Date();
  for (const node of root.querySelectorAll('time[data-f]')) {
    const t = new Date(node.dateTime);
    if (node.dataset.f === 'age') write(node, ageText(now - t));
    else write(node, momentText(t, now, node.dataset.f === 'exact'));
  }
  const line = byId('at-now'); // of a person's day
  if (line && line.dataset.still === undefined) {
    const { from, until } = line.dataset;
    const share = (now - new Date(from)) / (new Date(until) - new Date(from));
    for (const name of ['x', 'x1', 'x2']) for (const mark of line.querySelectorAll(`[${name}]`)) mark.setAttribute(name, `${Math.min(100 * share, 100).toFixed(2)}%`);
    line.querySelector('text').dataset.clock = now.toISOString();
  }
  for (const node of root.querySelectorAll('[data-clock]')) write(node, clock.format(new Date(node.dataset.clock)));
  const zone = byId('zone');
  if (zone) write(zone, `yours, ${Intl.DateTimeFormat().resolvedOptions().timeZone}`);
}

// ---- rows: a burst is applied once per frame

let queue = [];
let caughtUp = false; // what came before is old news and does not flash

function enqueue(change) {
  if (queue.length === 0) requestAnimationFrame(apply);
  queue.push(change);
}

function apply() {
  const changes = queue;
  queue = [];
  if (main.dataset.page === 'person' || main.dataset.page === 'me') {
    reload();
    return;
  }
  for (const { html, gone, flash } of changes) {
    if (gone) {
      if (byId(gone)) moved();
      byId(gone)?.remove();
      continue;
    }
    const template = document.createElement('template');
    template.innerHTML = html.trim();
    const row = template.content.firstElementChild;
    writeTimes(row);
    place(row, flash);
  }
}

function place(row, flash) {
  let shown = byId(row.id);
  if (shown?.dataset.v === row.dataset.v) return;
  if (shown) {
    const focused = shown.contains(document.activeElement);
    shown.replaceChildren(...row.children);
    shown.dataset.v = row.dataset.v;
    shown.dataset.key = row.dataset.key;
    shown.className = row.className;
    if (focused) shown.querySelector('a').focus({ preventScroll: true });
    moved();
  } else {
    shown = insert(row);
    if (!shown) return;
  }
  if (!flash) return;
  shown.classList.add('changed');
  clearTimeout(shown.fading);
  shown.fading = setTimeout(() => shown.classList.remove('changed'), 2400);
}

// insert puts a new row where it belongs, if that is on this page.
function insert(row) {
  const people = byId('people');
  if (!people || people.dataset.complete === undefined) return null;
  const rows = byId('rows');
  if (!rows) { // the table is not there while nobody is shown
    reload();
    return null;
  }
  const order = people.dataset.order;
  const down = order === '-name';
  let before = null;
  if (order === '' || order === 'name' || down) {
    for (const other of rows.children) {
      if (down ? other.dataset.key < row.dataset.key : other.dataset.key > row.dataset.key) {
        before = other;
        break;
      }
    }
  } else {
    moved();
  }
  rows.insertBefore(row, before);
  return row;
}

// moved counts changes that would have moved a row: rows keep their place until asked.
let moves = 0;

function moved() {
  const order = byId('people')?.dataset.order;
  const held = byId('held');
  if (!held || (order !== 'state' && order !== 'since')) return;
  moves += 1;
  held.querySelector('span').textContent = `${moves === 1 ? '1 change' : `${moves} changes`} since it was sorted. Sort now`;
  held.href = location.href;
  held.hidden = false;
}

// counts updates the chips and the bar, and leaves the focus where it is.
function counts(html) {
  const template = document.createElement('template');
  template.innerHTML = html.trim();
  const summary = byId('summary');
  if (!summary) return;
  for (const chip of template.content.querySelectorAll('.chip')) {
    const shown = summary.querySelector(`.chip[data-state="${chip.dataset.state}"] b`);
    if (shown) write(shown, chip.querySelector('b').textContent);
  }
  summary.querySelector('.mix').replaceWith(template.content.querySelector('.mix'));
}

// ---- whole parts of a page: for filters, a person's page and the sources

let loading = null;
let again = 0;

function reload() {
  clearTimeout(again);
  again = setTimeout(() => load(location.href), 100);
}

async function load(address) {
  loading?.abort();
  loading = new AbortController();
  try {
    const answer = await fetch(address, { signal: loading.signal, headers: { Accept: 'text/html' } });
    const next = new DOMParser().parseFromString(await answer.text(), 'text/html');
    const nextMain = next.getElementById('main');
    if (!nextMain) { // an answer of something else on the way
      lost();
      return;
    }
    if (nextMain.dataset.page !== main.dataset.page || nextMain.dataset.role !== main.dataset.role) { // the person left, or the session is over
      location.assign(address);
      return;
    }
    const open = [...main.querySelectorAll('details[open]')].map((d) => d.id);
    const focus = document.activeElement?.id;
    for (const part of next.querySelectorAll('[data-part]')) byId(part.id)?.replaceWith(document.adoptNode(part));
    for (const id of open) if (id && byId(id)) byId(id).open = true;
    if (focus) byId(focus)?.focus({ preventScroll: true });
    document.title = next.title;
    main.dataset.cursor = nextMain.dataset.cursor;
    moves = 0;
    if (byId('held')) byId('held').hidden = true;
    writeTimes(document);
    if (main.dataset.watch !== nextMain.dataset.watch) {
      main.dataset.watch = nextMain.dataset.watch;
      connect();
    }
  } catch (error) {
    if (error.name !== 'AbortError') lost();
  }
}

// ---- the stream

let source = null;
let wait = 1; // seconds until the next attempt
let retry = 0;
let heard = new Date();
let lostAt = null;
let nextTry = null;

function connect() {
  source?.close();
  clearTimeout(retry);
  nextTry = null;
  caughtUp = false;
  const query = new URLSearchParams(main.dataset.watch);
  query.set('since', main.dataset.cursor);
  source = new EventSource(`/events?${query}`);
  const on = (name, take) => source.addEventListener(name, (event) => {
    heard = new Date();
    if (event.lastEventId) main.dataset.cursor = event.lastEventId;
    take(event.data);
    indicate();
  });
  on('row', (html) => enqueue({ html, flash: caughtUp }));
  on('gone', (gone) => enqueue({ gone }));
  on('counts', counts);
  on('beat', () => { if (main.dataset.page === 'me') reload(); });
  on('ready', (data) => {
    caughtUp = true;
    wait = 1;
    lostAt = null;
    byId('lost').hidden = true;
    const { version, role } = JSON.parse(data);
    byId('newer').hidden = version === main.dataset.version;
    if (role !== main.dataset.role) location.reload(); // somebody else looks than the page was written for
  });
  source.onerror = () => {
    const refused = source.readyState === EventSource.CLOSED;
    lost();
    if (refused) reload(); // the page itself says why
  };
}

function lost() {
  source?.close();
  if (nextTry) return;
  lostAt ??= heard;
  const delay = wait * (0.8 + 0.4 * Math.random()); // not all pages at once
  wait = Math.min(wait * 2, 30);
  nextTry = new Date(Date.now() + delay * 1000);
  retry = setTimeout(connect, delay * 1000);
  indicate();
}

function indicate() {
  const live = byId('live');
  live.hidden = false;
  const waiting = lostAt !== null && Date.now() - lostAt > 5000;
  live.classList.toggle('is-waiting', waiting);
  write(live.querySelector('span > span'), waiting ? 'reconnecting · last change' : 'live');
  const time = live.querySelector('time');
  time.dateTime = heard.toISOString();
  write(time, exactClock.format(heard));
  const note = byId('lost');
  if (!waiting) return;
  if (note.hidden) {
    note.hidden = false;
    write(note.querySelector('time'), exactClock.format(lostAt));
  }
  const left = nextTry ? Math.ceil((nextTry - Date.now()) / 1000) : 0;
  write(note.querySelector('div > span'), left > 0 ? `Trying again in ${left} s.` : 'Trying again.');
}

byId('lost').querySelector('button').addEventListener('click', connect);

// A page that nobody sees gives its connection back: a browser has few of them for one server.
document.addEventListener('visibilitychange', () => {
  if (document.hidden) {
    source?.close();
    clearTimeout(retry);
    nextTry = null;
  } else {
    connect();
  }
});

setInterval(() => {
  if (document.hidden) return;
  if (!nextTry && Date.now() - heard > 40000) lost(); // a connection can die in silence
  indicate();
  writeTimes(document);
}, 1000);

// ---- filters: a form that needs no button

const form = byId('filters');
if (form) {
  let typing = 0;
  const filter = () => {
    const query = new URLSearchParams([...new FormData(form)].filter(([, value]) => value !== ''));
    const address = query.size > 0 ? `/?${query}` : '/';
    history.replaceState(null, '', address);
    load(address);
  };
  form.addEventListener('input', () => {
    clearTimeout(typing);
    typing = setTimeout(filter, 200);
  });
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    clearTimeout(typing);
    filter();
  });
  document.addEventListener('keydown', (event) => {
    const find = form.elements.q;
    const typingElsewhere = /^(input|select|textarea)$/i.test(event.target.tagName ?? '');
    if (event.key === '/' && !typingElsewhere && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      find.focus();
    } else if (event.key === 'Escape' && event.target === find && find.value !== '') {
      find.value = '';
      filter();
    }
  });
}

// ---- the moment of a person's page: in the zone of the viewer, as all times

const moment = byId('moment');
if (moment) {
  const at = moment.elements.at;
  const shift = new Date(at.dataset.at);
  at.value = new Date(shift - shift.getTimezoneOffset() * 60000).toISOString().slice(0, 19);
  moment.addEventListener('submit', (event) => {
    const t = new Date(at.value); // without a zone: the viewer's
    if (Number.isNaN(t.getTime())) return;
    event.preventDefault();
    location.assign(`${moment.action}?${new URLSearchParams({ at: t.toISOString() })}`);
  });
}

// ---- forms that say until when: days end where the viewer is

for (const zone of document.querySelectorAll('input[name="zone"]')) zone.value = Intl.DateTimeFormat().resolvedOptions().timeZone;

byId('bad')?.focus();

// ---- the sources: what they say of themselves changes without an event

if (['sources', 'source'].includes(main.dataset.page)) {
  setInterval(() => {
    if (!document.hidden && lostAt === null) reload();
  }, 3000);
}

writeTimes(document);
connect();

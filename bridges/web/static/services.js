// Keeps the pages of presence services current, checks their form while it is typed,
// and tries a connection in place. Every page is complete without this module.

import { writeTimes } from './board.js';

const byId = (id) => document.getElementById(id);

async function pageOf(address, options) {
  const answer = await fetch(address, options);
  return new DOMParser().parseFromString(await answer.text(), 'text/html');
}

// put takes a part of another page, and leaves what is open and the focus.
function put(page, id) {
  const part = page.getElementById(id);
  if (!part || !byId(id)) return;
  const open = [...byId(id).querySelectorAll('details[open]')].map((d) => d.id);
  const focus = byId(id).contains(document.activeElement) ? document.activeElement.id : '';
  const fresh = document.adoptNode(part);
  writeTimes(fresh);
  byId(id).replaceWith(fresh);
  for (const one of open) if (byId(one)) byId(one).open = true;
  if (focus) byId(focus)?.focus({ preventScroll: true });
}

// ---- live

const every = 4000; // milliseconds
let next = 0;

async function refresh() {
  clearTimeout(next);
  if (document.hidden) return; // until it is seen again
  try {
    const page = await pageOf(location.pathname, { headers: { Accept: 'text/html' } });
    for (const part of document.querySelectorAll('[data-live]')) put(page, part.id);
  } catch {
    // another one may succeed; the layout says that the connection is lost
  }
  clearTimeout(next);
  next = setTimeout(refresh, every);
}

if (document.querySelector('[data-live]')) {
  next = setTimeout(refresh, every);
  document.addEventListener('visibilitychange', refresh);
}

// ---- the form

const form = byId('service');
const touched = new Set();
let checking = null;
let typing = 0;

async function check() {
  checking?.abort();
  checking = new AbortController();
  try {
    const answer = await fetch(form.dataset.check, { method: 'POST', body: new URLSearchParams(new FormData(form)), signal: checking.signal });
    if (!answer.ok) return;
    const { problems, says } = await answer.json();
    for (const field of form.elements) {
      const error = field.id && byId(`${field.id}-e`);
      if (!error) continue;
      const text = problems[field.name] ?? '';
      if (text && !touched.has(field.name) && error.hidden) continue; // nobody was there yet
      error.querySelector('span').textContent = text;
      error.hidden = text === '';
      if (text) field.setAttribute('aria-invalid', 'true');
      else field.removeAttribute('aria-invalid');
    }
    if (byId('wrong') && Object.keys(problems).length === 0) byId('wrong').hidden = true;
    if (byId('says')) byId('says').textContent = says;
  } catch {
    // the next letter, or the button, checks again
  }
}

async function test(button) {
  button.disabled = true;
  const said = button.lastChild;
  const before = said.textContent;
  said.textContent = 'Testing…';
  const body = new URLSearchParams(new FormData(form));
  body.set('do', 'test');
  try {
    const page = await pageOf(form.action, { method: 'POST', body });
    if (page.getElementById('wrong')) form.requestSubmit(form.querySelector('[value=preview]'));
    else put(page, 'trials');
  } catch {
    said.textContent = before;
    button.disabled = false;
  }
}

if (form?.dataset.check && form.querySelector('.savebar')) {
  form.addEventListener('input', (event) => {
    if (event.target.id === 'find') return;
    touched.add(event.target.name);
    clearTimeout(typing);
    typing = setTimeout(check, 300);
  });
}
form?.addEventListener('submit', (event) => {
  clearTimeout(typing);
  if (event.submitter?.value !== 'test') return;
  event.preventDefault();
  test(event.submitter);
});
